"""Speed and memory beside peers, with quality beside the speed; never run by the tests."""
