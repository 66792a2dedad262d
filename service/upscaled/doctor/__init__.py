"""`upscaled doctor`: checks of everything that can be wrong with an installation.

Nothing here connects to another machine, except to the database and the bucket of the settings and,
where it is asked for, to the public base URL.
"""
