"""Finds the fastest way to run a model on this machine, among those proven to give its picture."""
