"""What other rooms give the post: who takes a kind of letter, sees it pass, hears the answer."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from node.transit.model import Letter, SentLetter

__all__ = ["LetterHandler", "PassingHandler", "ReceiptHandler"]

LetterHandler = Callable[[Connection, Letter], str]
"""Takes a letter; "" accepts it, a stable code refuses it: then what it wrote is undone."""
PassingHandler = Callable[[Connection, Letter], None]
"""Sees an open letter on its way through here."""
ReceiptHandler = Callable[[Connection, SentLetter, str], None]
"""Learns at the author what the addressee said: "" or the code of its refusal."""
