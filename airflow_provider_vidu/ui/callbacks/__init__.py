"""The route that takes the service's callbacks, and resumes the tasks that wait for them.

It is the only route without a login: a token in its path, and Vidu's signature, take the login's place. Nothing that a
callback says is believed. It writes one of two things: a deferred task of this provider is scheduled again, at most
every 30 s, and then polls once; or, if no task waits, a time is written beside the assets whose event triggers may
watch the generation, and these poll earlier than at their interval.

* ``signatures``: Vidu's signature, its date and its nonce. Pure.
* ``airflow_tasks``: all that touches Airflow's internals to resume a task.
* ``airflow_assets``: all that touches them to nudge event triggers.
* ``grouped_queries``: many tokens in one query of the database.
* ``keys``: the API key that a signature is checked with.
* ``waking``: when a task may be resumed, and callbacks that come too early.
* ``nudging``: callbacks that no task waits for.
* ``routes``: the route.
"""
