"""Which errors of the database judge a request, and which only say that it is not to be had."""

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

from chassis.dynamodb import dynamodb_errors
from chassis.errors import Unavailable


def client_error(code: str, status: int = 400) -> ClientError:
    """What the client raises for an answer with that code."""
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "PutItem")  # type: ignore[arg-type]  # the rest of an answer does not matter


@pytest.mark.rule("C1")
@pytest.mark.parametrize(
    "failure",
    [
        *(
            client_error(code)
            for code in (
                "ThrottlingException",
                "ProvisionedThroughputExceededException",
                "AccessDeniedException",
                "ExpiredTokenException",
                "InvalidSignatureException",  # a machine with a wrong clock
                "ReplicatedWriteConflictException",
                "AnErrorOfNextYear",
            )
        ),
        client_error("InternalServerError", 500),
        client_error("ValidationException", 503),
        EndpointConnectionError(endpoint_url="here"),
        ReadTimeoutError(endpoint_url="here"),
        TimeoutError(),
        ConnectionResetError(),
    ],
    ids=repr,
)
def test_what_is_no_verdict_on_the_content_is_the_dependencys(failure: Exception) -> None:
    """Away, throttled, not permitted, or unknown: later, the same again; no record is blamed for it."""
    with pytest.raises(Unavailable), dynamodb_errors():
        raise failure


@pytest.mark.rule("C1")
@pytest.mark.parametrize(
    "code", ["ValidationException", "ConditionalCheckFailedException", "ItemCollectionSizeLimitExceededException"]
)
def test_a_verdict_on_the_content_passes(code: str) -> None:
    """What the request itself has done wrong is the caller's to see: the same again would end the same."""
    with pytest.raises(ClientError), dynamodb_errors():
        raise client_error(code)
