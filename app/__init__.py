"""The program: command line, session and (with the window) everything on the screen."""
