"""A census of Python source: measures every module of a folder, on all cores."""
