"""`linkmesh fetch`: get the engines now, so that no later start needs the network."""

from linkmesh.cli.terminal import say


def fetch() -> None:
    """Fetch Kafka, the DynamoDB engine and Zipkin into the user's cache, checksums verified."""
    from linkmesh.cli.progress import Bar
    from linkmesh.local.cache import KAFKA, ZIPKIN, cache_folder, dynamodb_files, fetch_all

    fetch_all([dynamodb_files(), KAFKA, ZIPKIN], Bar())
    say(f"all engines are in {cache_folder()}")
