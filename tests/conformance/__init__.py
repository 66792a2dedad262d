"""The contract as a table of requests and answers, to be run against any base URL (README.md)."""
