"""The service: a page and an API over the Python API, with queues, limits and authorisation. It computes nothing."""
