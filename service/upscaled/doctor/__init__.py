"""`upscaled doctor`: checks of everything that can be wrong with an installation.

Each check takes the settings and returns findings; `checkup` runs all of them at once.
Nothing here connects to another machine, except to the database and the bucket that the settings
name and, where it is asked for, to the public base URL.
"""
