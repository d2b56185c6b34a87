"""What is learned: the eigenbasis, the purifier's networks by self-supervised rehearsal, and how they look."""
