"""The changes of objects that run no service themselves, one file for each kind of object."""
