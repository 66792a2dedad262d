"""Many files on this machine, without HTTP: finding them, knowing what is done, doing the rest."""
