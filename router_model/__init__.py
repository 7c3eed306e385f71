"""The router head: how hard is this prompt, and what would each tier make of it?"""
