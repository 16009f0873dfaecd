"""What leaves the program: pictures, the K-buffer montage, videos."""
