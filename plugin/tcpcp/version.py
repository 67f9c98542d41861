"""The version, of the library and of the driver: setup.cfg and plugin/setup.cfg read it from here."""

VERSION = "0.1.0"
__version__ = VERSION
