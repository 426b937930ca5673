"""What starts runs by itself: schedules, and sensors."""
