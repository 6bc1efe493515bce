"""Talking to the API server: the only package that does.

The seam is `api.Api`, one Protocol with six verbs. `client.Client` implements it over HTTP, the simulator's in-memory
server implements it for tests. Everything else here is built on the seam alone: `informer` (what is there),
`dispatcher` (what shall be written), `election` (who may write). Nothing in this package knows metrics or frameworks;
it reports through `observer.Observer`.
"""
