"""What processes must agree on besides protobuf: topics, codes, cache entries, table rows, reasons. Pure, no I/O."""
