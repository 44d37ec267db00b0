"""QueryService and ExecutorService."""

from __future__ import annotations

from node.questions import Questions

__all__ = ["ExecutorServicer", "QueryServicer"]


class QueryServicer:
    """fenhe.federation.v1.QueryService."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions
        self.Ask = self.Explain = None


class ExecutorServicer:
    """fenhe.federation.v1.ExecutorService."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions
        self.AskSite = None
