"""What to do next: the rules that a blocking call, asyncio and trio have in common.

Nothing here waits, reads a clock or makes a socket. Each class is told what happened, and says what
is left to do; its caller tries, and waits if nothing could be done.
"""
