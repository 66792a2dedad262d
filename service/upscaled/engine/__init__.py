"""One class per runtime, device and model choice. Only this package knows devices."""
