"""What every refusal must be, whatever was refused."""

from core.contract.errors import ContractError
from core.contract.http import STATUS, ErrorBody, Problem

LONGEST_WORDS = 2000


def check_refusal(refusal: ContractError) -> None:
    """It has a status of its own below 500, and words that can be sent, of a length that somebody reads."""
    assert 400 <= STATUS[type(refusal)] < 500, refusal
    assert refusal.detail
    ErrorBody(detail=refusal.detail).model_dump_json()
    problem = Problem.of(refusal).model_dump_json()
    assert len(problem) <= LONGEST_WORDS, f"{len(problem)} characters: {problem[:200]}"
