"""What each kind of fault does to a simulated fleet: the effects and marks by which it shows, and what is true."""
