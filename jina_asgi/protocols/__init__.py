"""The protocols: each serves a Runner over the network, and most can call a server as a Runner. Imports no Runner."""
