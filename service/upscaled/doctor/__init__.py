"""`upscaled doctor`: checks of everything that can be wrong with an installation.

    finding      the finding of a check: ok, a warning or a failure, and what to do about it
    environment  which settings are wrong, and what the others say
    hardware, weights, folders, database, bucket, clock, public_url, port
                 one concern each: settings in, findings out
    engines      runs golden_run and reads its findings, or how it died
    golden_run   a process of its own: golden images the whole way through the engines
    checkup      all of them at once, each with a deadline

Nothing here connects to another machine, except to the database and the bucket that the settings
name and, where it is asked for, to the public base URL.
"""
