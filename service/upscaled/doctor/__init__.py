"""`upscaled doctor`: everything that can be wrong with an installation, each found by one module.

    finding      what a check says: ok, warning or failure, and what to do about it
    given        the settings: which are wrong, and what the rest of them says
    hardware, weights, folders, database, clock, public_url, port
                 one concern each: settings in, findings out
    golden_run   a process of its own: the engines, and a picture the whole way through them
    engines      starts it and judges what it reported, or how it died
    checkup      all of them at once, each with a deadline

Nothing here connects to another machine, except to the database that the settings name and, where
it is asked for, to the public base URL.
"""
