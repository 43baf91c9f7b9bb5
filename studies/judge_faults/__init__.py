"""When a judge is wrong in a known way: at which step do proxy and oracle part, and does the report say so?"""
