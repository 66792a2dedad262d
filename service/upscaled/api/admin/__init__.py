"""Administration over HTTP, under `/admin`: an application of its own beside the contract's."""
