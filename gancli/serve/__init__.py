"""The web page of `gan sample serve=true`: service, server and user interface."""
