"""One installed node: everything a place runs.

Owns storage, security, records, links, services, the command line and the demo, and is the only
room that puts the others together (app.py). Promises that what it acknowledged is durable, that
every read has a caller and leaves an audit row, and that nothing reaches a peer but over a link.
Never decides what replication or federation decide; it supplies what they ask for.
"""

__all__: list[str] = []
