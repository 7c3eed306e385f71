"""Shadow pairs: requests that are asked again at another rung, after the client has its answer."""
