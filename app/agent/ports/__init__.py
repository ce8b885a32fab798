"""The interfaces of the loop to everything outside, one small protocol per role.

Reading and writing are separate ports: a dry run is a missing writer, not an
`if`. Each port has one contract suite under `tests/contract/` that runs over
the fake and every real adapter.

Errors, for every port unless said otherwise: `TransientError` if the other side cannot be reached now,
`PermanentError` (`Forbidden`, `NotFound`, `Invalid`) if a retry will not help. No other exception
leaves an adapter.
"""
