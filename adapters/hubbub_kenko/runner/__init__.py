"""Running uploaded applications: packages, processes, and the program that is a remote runner.

The hub's own runner and a remote one run applications by the same `Processes`. A remote one,
`Runner`, is a client of the hub: `hubbub runner run URL --token-file FILE`.
"""
