"""The kernels' benchmark by family: each module's ``rows(bench)`` adds its lines to the table."""
