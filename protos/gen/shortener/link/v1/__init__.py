"""Generated from protos/shortener by `make protos`; edit the .proto files instead."""
