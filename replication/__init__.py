"""The change log and the links."""
