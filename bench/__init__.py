"""What Linkmesh costs, measured on one machine beside nginx: `make bench`. docs/PERFORMANCE.md says how and what."""
