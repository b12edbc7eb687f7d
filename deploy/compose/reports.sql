-- PostgreSQL's image runs this once, when its volume is empty. The logins come from OpenBao.
CREATE TABLE reports (id int PRIMARY KEY, title text NOT NULL, total int NOT NULL);
INSERT INTO reports VALUES (1, 'January', 1200), (2, 'February', 1350), (3, 'March', 980);
