"""The probe's proposals beside what whole runs came to."""
