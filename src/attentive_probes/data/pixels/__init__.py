"""From bytes to pixels: decoding, views, transforms, hashes of content."""
