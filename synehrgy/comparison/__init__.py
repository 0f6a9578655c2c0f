"""Several generators on one cohort, judged by one evaluation, in one table."""
