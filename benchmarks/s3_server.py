"""An S3 to store into: moto's server, in a process of its own. ``python -m benchmarks.s3_server BUCKET``."""

from __future__ import annotations

import json
import sys
import threading

import boto3
from moto.server import ThreadedMotoServer


def main(bucket: str) -> None:
    """Make the bucket, print ``{"port": …}``, and serve until terminated."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    client.create_bucket(Bucket=bucket)
    print(json.dumps({"port": port}), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1])
