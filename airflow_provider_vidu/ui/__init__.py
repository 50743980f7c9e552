"""The clip pages in the Airflow UI: a plugin of the API server. Nothing else in this package imports it.

Its floors, each of which imports only those below it:

- ``plugin`` is what every Airflow process imports; ``app`` holds the routes.
- ``batches`` shows the rows of a batch as clips: it follows the batch's journal beneath a preview root.
- ``refusals`` answers requests that the routes refuse, ``sending`` sends files.
- ``page_queries`` is what all requests share.
- ``spending`` adds up what generations have cost; ``callbacks`` resumes tasks when the service reports an end.
- ``records`` reads from Airflow's database what tasks have left there (``store``, ``counts``), and from an XCom back
  end what it keeps elsewhere (``references``).
- ``clips`` makes of it what a page shows, without I/O except in ``live``, which polls the service.
- ``playing`` checks and opens stored files (``preview``), sends them (``media``) and decides on redirects.
- ``pages`` holds the HTML shell and its headers, ``shared`` saves repeated queries, and
  ``threads`` keeps blocking work off the event loop.
"""
