"""Answers that nobody has awaited yet, bounded by count and size; the oldest go."""

from __future__ import annotations

from collections import OrderedDict

from mdplatform.requests.answer import Answer

MOST_KEPT = 1_000
MOST_KEPT_BYTES = 64_000_000


class Kept:
    """Answers by request id."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._contents: dict[str, bytes] = {}
        self._bytes = 0

    def __contains__(self, id: str) -> bool:
        return id in self._answers

    def content_of(self, id: str) -> bytes:
        """Give what was asked under that id, as a digest; empty if that is not known."""
        return self._contents.get(id, b"")

    def put(self, answer: Answer, content: bytes = b"") -> None:
        """Keep an answer, with the digest of what was asked; the newest one is always kept."""
        self._answers[answer.request_id] = answer
        self._contents[answer.request_id] = content
        self._bytes += _size(answer)
        while len(self._answers) > MOST_KEPT or (self._bytes > MOST_KEPT_BYTES and len(self._answers) > 1):
            self.take(next(iter(self._answers)))

    def take(self, id: str) -> Answer | None:
        """Give an answer and keep it no longer; None if it is not kept."""
        answer = self._answers.pop(id, None)
        self._contents.pop(id, None)
        self._bytes -= 0 if answer is None else _size(answer)
        return answer


def _size(answer: Answer) -> int:
    return sum(len(part.data) for part in answer.body.parts)
