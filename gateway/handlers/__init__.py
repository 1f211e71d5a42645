"""HTTP: what is asked, who answers, and how the answer looks."""
