"""Sockets and what guards them: addresses, proxies, TLS, bodies, one HTTP exchange."""
