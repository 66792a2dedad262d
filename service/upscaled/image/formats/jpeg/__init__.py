"""JPEG files (ITU-T T.81): their structure, damage and quality, and writing them."""
