"""One leg of a batch in a worker: submitting, collecting, what it spends, and the run that joins them."""
