"""Every attack × share × method on captured honest rounds: the bench on which every claim about detection is made."""
