"""The latent page of `gan sample serve=true`: what it draws, where it listens, and the page itself."""
