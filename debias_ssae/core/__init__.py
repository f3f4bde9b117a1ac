"""What every folder uses: settings, errors, files, devices, statistics."""
